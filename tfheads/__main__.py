"""`python -m tfheads` is the `tfheads` command."""

import sys

import tfheads_command

sys.exit(tfheads_command.main())
