"""The program that runs beside somebody's tau2 code, in a process and perhaps a Python of its own.

It imports nothing of this project: `custom.process` starts it with the folder of this package alone.
"""
