"""What a finished search comes to, as one HTML file: data apart from templates."""
