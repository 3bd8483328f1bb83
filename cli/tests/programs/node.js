// Closures, a heap that the collector must clear, promises, a buffer, a child process, workers.
const { execFileSync } = require('child_process');
const crypto = require('crypto');
const { Worker, isMainThread, parentPort } = require('worker_threads');
if (!isMainThread) {
    let x = 0; for (let i = 0; i < 1e5; i++) x = (x * 31 + i) % 1000003;
    parentPort.postMessage(x);
} else {
    let keep = [];
    for (let i = 0; i < 200000; i++) { keep.push({ i, s: 'x' + i }); if (keep.length > 1000) keep = []; }
    console.log(keep.length);
    console.log(crypto.createHash('sha256').update(Buffer.alloc(1 << 20, 7)).digest('hex'));
    console.log(execFileSync('expr', ['6', '*', '7']).toString().trim());
    const all = [1, 2].map(() => new Promise((ok, no) => { const w = new Worker(__filename); w.on('message', ok); w.on('error', no); }));
    Promise.all(all).then(r => { console.log(r); process.exitCode = 6; });
}
