"""What the manager and a host say to each other: exchanges, queues and keys (`topology`), bodies
(`messages`), and the signed envelope around what the manager says (`envelope`). Pure: bytes in, values
out."""
