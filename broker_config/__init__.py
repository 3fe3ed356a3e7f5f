"""The contract at the broker: what may be said there, by whom, and the files that enforce it.

Device and server meet only here: ids and topics, every message with its bounds, the codec of
sealed batches, and the policy that each broker's access list is rendered from. Nothing in this
package imports anything else of ours, reads a clock or opens a socket.
"""
