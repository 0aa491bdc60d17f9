"""An engine that forgets within seconds what another keeps for minutes; see `test_sdk_clients`."""

import sys

from cookbook.engine import futures, server, sessions
from cookbook.engine.__main__ import main

server.HOLD_S = 0.3  # of an unanswered poll
futures.KEEP_FETCHED_S = 0.5
sessions.SILENT_S = 14.0  # the SDK's heartbeats come every ten seconds
sys.exit(main())
