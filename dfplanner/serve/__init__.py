"""A planner behind a WebSocket, in openpi's wire: ``protocol`` is shared, ``server`` and ``client`` are its ends."""
