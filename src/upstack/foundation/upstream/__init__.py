"""The HTTP/1.1 client that talks to providers: keep-alive pools, TLS, proxies, deadlines, back-pressure."""
