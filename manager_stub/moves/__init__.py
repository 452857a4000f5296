"""VMs that move from host to host while they run: who may, what each host is told, and where each of them is.

    REST ──► moves ──orders──► courier ──► the two hosts
                ▲                              │
                └── what they say, parts ──────┘

The target has the policy of the VM's vNICs before the VM runs there (`Register.expect`). What the VM takes
along goes from one host through here to the other, sealed: nobody here reads it, and nobody else gets it.
"""
