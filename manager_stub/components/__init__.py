"""What components of the hosts say to the manager, and it to them: `switchboard` knows who waits for what and
keeps what was said, `courier` carries it over the broker."""
