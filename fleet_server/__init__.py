"""The operator's side: takes in what devices report, keeps it, receipts it, and answers for it."""
