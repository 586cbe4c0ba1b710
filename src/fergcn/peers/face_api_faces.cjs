// Answers of @vladmandic/face-api for faces; runs in its environment, see fergcn/peers/__init__.py.
const path = require("path");
const wasm = require("@tensorflow/tfjs-backend-wasm");
const faceapi = require("@vladmandic/face-api/dist/face-api.node-wasm.js");

const NAMES = {
  anger: "angry",
  disgust: "disgusted",
  fear: "fearful",
  happiness: "happy",
  sadness: "sad",
  surprise: "surprised",
  neutral: "neutral",
};

/** Chunks of stdin as reads of so many bytes; null at the end. */
function reader(stream) {
  const chunks = stream[Symbol.asyncIterator]();
  let rest = Buffer.alloc(0);
  return async (count) => {
    const parts = [rest];
    let have = rest.length;
    while (have < count) {
      const { value, done } = await chunks.next();
      if (done) {
        if (have > 0) throw new Error("found an array cut off");
        return null;
      }
      parts.push(value);
      have += value.length;
    }
    const all = Buffer.concat(parts);
    rest = all.subarray(count);
    return all.subarray(0, count);
  };
}

async function main() {
  const tf = faceapi.tf;
  wasm.setWasmPaths(path.dirname(require.resolve("@tensorflow/tfjs-backend-wasm")) + "/");
  await tf.setBackend("wasm");
  await tf.ready();
  const net = faceapi.nets.faceExpressionNet;
  await net.loadFromDisk(path.join(path.dirname(require.resolve("@vladmandic/face-api")), "../model"));
  const read = reader(process.stdin);
  const lines = [Object.keys(NAMES).join(",")];
  for (let magic; (magic = await read(10)) !== null; ) {
    const header = (await read(magic.readUInt16LE(8))).toString("latin1");
    const shape = /'shape': \((\d+), (\d+), (\d+), 3\)/.exec(header);
    if (!header.includes("'|u1'") || header.includes("True") || shape === null) {
      throw new Error("found no array of faces: " + header);
    }
    const [count, height, width] = shape.slice(1).map(Number);
    for (let index = 0; index < count; index++) {
      const face = tf.tensor3d(await read(height * width * 3), [height, width, 3], "int32");
      const answer = await net.predictExpressions(face);
      face.dispose();
      lines.push(Object.values(NAMES).map((name) => answer[name]).join(","));
    }
  }
  process.stdout.write(lines.join("\n") + "\n");
}

main().catch((error) => {
  console.error(String(error));
  process.exitCode = 1;
});
