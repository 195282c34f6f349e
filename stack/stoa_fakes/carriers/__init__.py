"""Three carriers that behave like real ones, as one process: FedEx, UPS and DHL, as far as a shop sees them.

They differ as the real ones do: in paths and bodies, in how a caller proves who it is, in tracking numbers
and their check digits, in the words for a scan, in how notices are signed. What they have in common is the
book-keeping: a booking is made once for a reference, collected once it was confirmed, and voided as long as
nothing was scanned. All of it is durable: what was answered is still so after kill -9.
"""
