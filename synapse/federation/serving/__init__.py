"""What this server answers when others ask about rooms."""
