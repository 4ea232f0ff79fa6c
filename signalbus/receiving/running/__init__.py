"""Running receivers: take the delivery, load its payload, invoke the receiver, and settle the outcome."""
