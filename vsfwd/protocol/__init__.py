"""What the manager and a host say to each other: exchanges, queues and keys (`topology`), bodies
(`messages`), the signed envelope around what the manager says (`envelope`), and what only one host can open
(`sealing`). Pure: bytes in, values out."""
