"""What models are made of: about fifteen operations, one implementation a backend."""
