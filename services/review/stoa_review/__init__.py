"""What buyers think of products."""
