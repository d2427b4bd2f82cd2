"""What a user and the agent say to each other: specs, settings, and what an episode was."""
