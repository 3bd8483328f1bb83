import asyncio
async def handle(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()
async def client(port, n):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for i in range(20):
        writer.write(b"message %d of %d\n" % (i, n))
        answers.append(await reader.readline())
    writer.close()
    return answers
async def child(n):
    p = await asyncio.create_subprocess_exec("expr", str(n), "*", "2", stdout=asyncio.subprocess.PIPE)
    out, _ = await p.communicate()
    return out.decode().strip(), p.returncode
async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    results = await asyncio.gather(*(client(port, n) for n in range(8)))
    print([r[-1] for r in results], sum(len(r) for r in results))
    print(await asyncio.gather(*(child(n) for n in range(4))))
    server.close()
    print(await asyncio.to_thread(sum, range(1000)))
asyncio.run(main())
