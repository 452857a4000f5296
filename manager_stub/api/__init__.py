"""The REST interface. A router a file; each is made with the collaborators it needs."""
