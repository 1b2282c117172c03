"""From ids to rows and back: what ranks ask of each other, the way there, the way back, and autograd between them."""
