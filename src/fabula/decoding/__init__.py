"""What is done with logits: strategies, and what they are given and give back."""
