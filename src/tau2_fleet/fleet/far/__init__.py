"""Servers on other hosts: the program that starts them there, and this side of the pipe to it."""
