"""Has the extension read behind the end of a block: AddressSanitizer must stop it there."""

import ctypes

import ringpost

block = ctypes.create_string_buffer(100)
longer = (ctypes.c_char * 200).from_address(ctypes.addressof(block))
ringpost.connect("ring:overflow").queue("jobs").put(memoryview(longer))
