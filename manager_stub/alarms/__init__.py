"""What is wrong, and what somebody has said of it: `causes` sees it in what hosts say and what the manager
knows of itself, `alarms` keeps who knows of it already."""
