# A TLS handshake between two ends in one process, through memory, without certificates.
import hashlib, ssl
client_in, client_out, server_in, server_out = (ssl.MemoryBIO() for _ in range(4))
def context(kind):
    ctx = ssl.SSLContext(kind)
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_NONE
    ctx.maximum_version = ssl.TLSVersion.TLSv1_2
    ctx.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
    return ctx
client = context(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(client_in, client_out)
server = context(ssl.PROTOCOL_TLS_SERVER).wrap_bio(server_in, server_out, server_side=True)
done = set()
while len(done) < 2:
    for name, end in (("client", client), ("server", server)):
        try:
            end.do_handshake()
            done.add(name)
        except ssl.SSLWantReadError:
            pass
        server_in.write(client_out.read())
        client_in.write(server_out.read())
print(client.version(), client.cipher())
message = bytes(range(256)) * 200
total = b""
for i in range(0, len(message), 10000):
    client.write(message[i:i + 10000])
    server_in.write(client_out.read())
    while True:
        try:
            total += server.read(65536)
        except ssl.SSLWantReadError:
            break
print(total == message, hashlib.sha256(total).hexdigest())
