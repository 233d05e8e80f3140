"""Storms: programs of several processes, made at random, and everything that may befall them.

    make storm MINUTES=30

topology.py    what a round consists of: broker, queues, who works there
roles.py       what each process does, and writes down
accounts.py    what was confirmed, what was handled; nothing may be missing
events.py      kill -9, SIGSTOP, forks, everybody at once, a reboot, full disks
__main__.py    rounds, until the time is over
"""
