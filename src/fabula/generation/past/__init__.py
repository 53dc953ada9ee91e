"""`past_key_values`: what a call hands out, takes back, and reads from foreign caches."""
