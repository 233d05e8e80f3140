"""What a durable broker keeps on disk, in LMDB.

environment   the files: opened once in a process, again after a fork; one lock for all who write
format        what the tables hold, byte for byte (docs/design/durability.md is its description)
blocks        frames: written from the ring, found again, deleted
log           one log's storage: what native/src/stored.h asks for
writer        commits of all logs together; levels of durability
disk          what of it messages do not get
registry      which logs there are, and their rings made anew
checking      verify() and backup()
"""
