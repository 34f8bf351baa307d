"""The kernel boundary: system calls, ioctls and what is built of nothing else.

Everything here raises ``OSError``, but for mounting and unmounting, whose errors carry the kernel's
own words. Modules import on any platform; calls fail where there is no Linux.
"""
