"""What in a patch speaks for its class, and what to make of the answer."""
