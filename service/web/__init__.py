"""What a browser, a health check and a metrics collector see."""
