"""What a call gives its model to read: ids, vectors, text for an encoder, and what each row starts from."""
