"""What a defense or an attack is given and answers, and the gate that uploads pass before it sees them."""
