"""The pages of the server in a browser: Chromium, headless, through nginx and the workers."""
