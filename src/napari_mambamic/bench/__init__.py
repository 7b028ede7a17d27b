"""How fast this machine is: the networks alone, and the whole flow."""
