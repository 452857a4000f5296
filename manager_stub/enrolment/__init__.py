"""How a host becomes one of the installation's, and stays one: who may come (`tokens`), what hosts have been
given (`credentials`), the steps between them (`admission`), and what follows before a certificate ends
(`renewals`)."""
