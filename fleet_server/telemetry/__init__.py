"""From a message to a receipt: admission, ledger, the batch store, ingest, and the gaps that remain.

``admission`` decides whether a batch is what it says; ``ledger`` which numbers are held and missed;
``receipts`` what a device is told; ``store`` is the port that makes it durable; ``ingest`` joins them;
``gaps`` explains what is not there.
"""
