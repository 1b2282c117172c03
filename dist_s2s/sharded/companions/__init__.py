"""What other people's programs bring along, and what tables do with it."""
