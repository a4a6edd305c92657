// The scene around the people: a floor, the camera that saw them, light, and the viewer's own camera.

import {
  BufferAttribute, BufferGeometry, Color, DirectionalLight, Group, HemisphereLight, LineBasicMaterial,
  LineSegments, PerspectiveCamera, Scene, Spherical, Vector3, WebGLRenderer,
} from "./vendor/three.module.min.js";
import { OrbitControls } from "./vendor/OrbitControls.js";

const FLOOR = 0.35, FOV_DEG = 45, FRUSTUM_M = 0.6, FILL = 1.8, TURN_RAD = Math.PI / 36, ZOOM = 1.1;
const KEYS = {
  ArrowLeft: [-TURN_RAD, 0, 1], ArrowRight: [TURN_RAD, 0, 1], ArrowUp: [0, -TURN_RAD, 1], ArrowDown: [0, TURN_RAD, 1],
  "+": [0, 0, 1 / ZOOM], "=": [0, 0, 1 / ZOOM], "-": [0, 0, ZOOM],
};

// The lines of a floor, square by square: some drivers lose a line that reaches behind the viewer.
function squares(width, depth) {
  const points = [];
  for (let x = -width / 2; x <= width / 2; x++) {
    for (let z = -depth; z <= 0; z++) {
      if (x < width / 2) { points.push(x, 0, z, x + 1, 0, z); }
      if (z < 0) { points.push(x, 0, z, x, 0, z + 1); }
    }
  }
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(new Float32Array(points), 3));
  return geometry;
}

export class Stage {
  // Throws where the browser has no WebGL.
  constructor(canvas) {
    this.canvas = canvas;
    // Transparent, so that the page's own ground is behind it.
    this.renderer = new WebGLRenderer({ canvas, alpha: true, antialias: true });
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.scene = new Scene();
    // `mirror` holds the world, y up; `people` is in the axes of the camera that saw them.
    this.mirror = new Group();
    this.people = new Group();
    this.people.matrixAutoUpdate = false;
    this.mirror.add(this.people);
    const sun = new DirectionalLight(0xffffff, 1.6);
    sun.position.set(2, 5, 4);
    this.scene.add(this.mirror, new HemisphereLight(0xffffff, 0x555a66, 1.7), sun);
    this.camera = new PerspectiveCamera(FOV_DEG, 1, 0.05, 400);
    this.camera.position.set(2, 1.2, 1);
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.target.set(0, 0, -3);
    this.lines = new LineBasicMaterial();
    this.floorLines = new LineBasicMaterial({ transparent: true, opacity: FLOOR });
    this.seen = null;
    this.floor = null;
    this.cameraView = false;
    this.dirty = true;
    this.lost = false;
    this.onFrame = () => {};
    this.onLeaveCamera = this.onMove = this.onResize = this.onLost = () => {};
    this.controls.addEventListener("start", () => this.move());
    this.controls.addEventListener("change", () => this.draw());
    canvas.addEventListener("keydown", (event) => this.turnByKey(event));
    // A browser takes the oldest view's context once there are too many, and some in the background.
    canvas.addEventListener("webglcontextlost", () => this.setLost(true));
    canvas.addEventListener("webglcontextrestored", () => this.setLost(false));
    this.resized = new ResizeObserver(() => { this.resize(); this.onResize(); });
    this.resized.observe(canvas.parentElement);
    this.controls.update();
    this.recolor();
    this.renderer.setAnimationLoop((now) => {
      this.onFrame(now);
      if (this.dirty) { this.render(); }
    });
  }

  // Draw once more at the browser's next frame.
  draw() { this.dirty = true; }

  render() {
    this.dirty = false;
    this.renderer.render(this.scene, this.camera);
  }

  setLost(lost) {
    this.lost = lost;
    this.onLost(lost);
    this.draw();
  }

  // Show the camera that saw the people: K (3, 3) and the picture's size in pixels, its axes in the world.
  setCamera({ intrinsics, width, height, camera_to_world, camera_m }) {
    const [[right, over, x], [, down, y]] = intrinsics;
    this.seen = { right, down, x, y, width, height };
    const [a, b, c] = camera_to_world;
    const [px, py, pz] = camera_m;
    this.people.matrix.set(...a, px, ...b, py, ...c, pz, 0, 0, 0, 1);
    this.people.matrixWorldNeedsUpdate = true;
    // A world whose origin is the camera has a floor of unknown height.
    this.floorIsKnown = camera_m.some((value) => value !== 0);
    const corner = (u, v) => [FRUSTUM_M * (u - x) / right, FRUSTUM_M * (v - y) / down, FRUSTUM_M];
    const corners = [corner(0, 0), corner(width, 0), corner(width, height), corner(0, height)];
    // A mark above the picture says which side is up.
    const mark = [corner(0.4 * width, -0.04 * height), corner(0.5 * width, -0.16 * height), corner(0.6 * width, -0.04 * height)];
    const points = [];
    corners.forEach((each, index) => points.push([0, 0, 0], each, each, corners[(index + 1) % 4]));
    mark.forEach((each, index) => points.push(each, mark[(index + 1) % 3]));
    const geometry = new BufferGeometry();
    geometry.setAttribute("position", new BufferAttribute(new Float32Array(points.flat()), 3));
    if (this.frustum) { this.people.remove(this.frustum); this.frustum.geometry.dispose(); }
    this.frustum = new LineSegments(geometry, this.lines);
    this.people.add(this.frustum);
    this.draw();
  }

  // Swap left and right, or swap them back.
  setMirror(on) {
    this.mirror.scale.x = on ? -1 : 1;
    this.scene.updateMatrixWorld();
    if (this.cameraView) { this.placeAtCamera(this.controls.target.distanceTo(this.camera.position)); }
    this.resize();
  }

  // Lay a floor of 1 m squares at a height (metres): `width` squares wide, `depth` before the camera.
  setFloor(height_m, width, depth) {
    if (this.floor?.width !== width || this.floor?.depth !== depth) {
      this.floor?.lines.removeFromParent();
      this.floor?.lines.geometry.dispose();
      this.floor = { width, depth, lines: new LineSegments(squares(width, depth), this.floorLines) };
      this.mirror.add(this.floor.lines);
    }
    this.floor.lines.position.y = height_m;
    this.draw();
  }

  // Look from the side and above at a ball of the world that holds what is to be seen.
  lookAt(point, radius_m) {
    this.leaveCamera();
    const narrow = Math.min(this.camera.aspect, 1);
    this.controls.target.copy(point);
    this.camera.position.copy(point).add(new Vector3(0.9, 0.4, 1).setLength(radius_m * FILL / narrow));
    this.controls.update();
    this.draw();
  }

  // Look through the camera that saw the people: its whole picture fits into the view.
  enterCamera(distance_m) {
    this.cameraView = true;
    this.placeAtCamera(distance_m);
    this.resize();
    this.draw();
  }

  // Put the viewer where the camera was, which may have looked down or been turned about its axis.
  placeAtCamera(distance_m) {
    this.scene.updateMatrixWorld();
    this.camera.position.copy(this.eye());
    this.controls.target.copy(this.toWorld(new Vector3(0, 0, distance_m)));
    this.camera.up.copy(this.toWorld(new Vector3(0, -1, 0)).sub(this.camera.position));
    this.camera.lookAt(this.controls.target);
  }

  // The place of the camera that saw the people, in the world as it is shown.
  eye() { return this.toWorld(new Vector3()); }

  // The viewer begins to move the view.
  move() {
    this.leaveCamera();
    this.onMove();
  }

  leaveCamera() {
    if (!this.cameraView) { return; }
    this.cameraView = false;
    this.camera.up.set(0, 1, 0);
    this.camera.clearViewOffset();
    this.resize();
    this.onLeaveCamera();
  }

  // Move the viewer with a point that is followed.
  carry(step) {
    this.controls.target.add(step);
    this.camera.position.add(step);
    this.controls.update();
  }

  turnByKey(event) {
    const step = KEYS[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) { return; }
    event.preventDefault();
    this.move();
    const from = new Spherical().setFromVector3(this.camera.position.clone().sub(this.controls.target));
    from.theta += step[0];
    from.phi += step[1];
    from.radius *= step[2];
    this.camera.position.setFromSpherical(from.makeSafe()).add(this.controls.target);
    this.controls.update();
    this.draw();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    if (!width || !height) { return; }
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.fov = FOV_DEG;
    if (this.cameraView && this.seen) { this.fitPicture(width, height); }
    this.camera.updateProjectionMatrix();
    this.draw();
  }

  // The camera's own lens. Its centre need not be in the middle of the picture.
  fitPicture(width, height) {
    const { right, down, x, y } = this.seen;
    const scale = Math.min(width / this.seen.width, height / this.seen.height);
    this.camera.fov = 360 / Math.PI * Math.atan(height / 2 / (scale * down));
    // Pixel centres are at whole numbers, so the picture's middle is at half of size - 1.
    const shift = [x - (this.seen.width - 1) / 2, y - (this.seen.height - 1) / 2];
    const mirrored = this.mirror.scale.x;
    this.camera.setViewOffset(width, height, -mirrored * scale * shift[0], -scale * shift[1], width, height);
    // After the offset, which sets its own.
    this.camera.aspect = width * down / (height * right);
  }

  // Take the page's colours: they change with its theme.
  recolor() {
    this.lines.color = this.floorLines.color = new Color(getComputedStyle(this.canvas).color);
    this.draw();
  }

  // A point in the camera's axes, in the world as it is shown.
  toWorld(point) {
    this.people.updateWorldMatrix(true, false);
    return point.applyMatrix4(this.people.matrixWorld);
  }

  dispose() {
    this.renderer.setAnimationLoop(null);
    this.resized.disconnect();
    this.controls.dispose();
    this.renderer.dispose();
    // Else the browser keeps the context until it collects garbage, and takes another view's instead.
    this.onLost = () => {};
    this.renderer.forceContextLoss();
  }
}
