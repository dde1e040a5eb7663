"""Twistd application plugins: for each command its options and how its service is made."""
