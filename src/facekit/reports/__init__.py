"""What pages and contact sheets are made of."""
