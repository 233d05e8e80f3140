"""How fast ringpost is, beside what else moves messages between Python processes on one machine.

    python -m benchmarks --help

Where things live:

    __main__.py     the command
    options.py      its arguments
    tournament.py   which measurement comes next: rivals take turns
    session.py      one measurement: starts the processes, gives the start, collects, cleans up
    peer.py         what each of those processes runs, under a watchdog
    messages.py     payloads with a number inside, and how a receiver checks them
    works/          what is measured: one file a work
    rivals/         who is measured: one file a rival
    report/         the tables, the JSON and the charts
    micro/          pytest-benchmark: single calls of ringpost in one process
"""
