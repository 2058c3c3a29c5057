"""What people carry away: pages and files made of results."""
