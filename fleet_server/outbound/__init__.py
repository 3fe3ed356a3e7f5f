"""What the server tells by itself: happenings, and their way to a feed, to webhooks and to mail.

``happenings`` what can happen; ``watch``, ``outages``, ``gap_watch`` and ``server_watch`` see it; ``store`` the port
of the outbox; ``retries``, ``signing``, ``events``, ``targets`` and ``letters`` decide what goes out, how and when;
``service`` is the one impure part.
"""
