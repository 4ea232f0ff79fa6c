"""An app whose signal is sent in each shape that projects send, with the real libraries; one receiver compares."""
