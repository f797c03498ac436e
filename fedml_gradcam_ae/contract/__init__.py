"""The interface of defenses and attacks, and the checks that uploads pass before a defense sees them."""
