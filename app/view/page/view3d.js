// A view of bodies in 3D with its buttons: the same for a live source, a recording and a notebook.

import { Vector3 } from "./vendor/three.module.min.js";
import { BodyShape, BoneShapes, Person } from "./body.js";
import { unpack } from "./container.js";
import { Floor } from "./floor.js";
import { NO_PEOPLE, ROW } from "./frames.js";
import { make } from "./make.js";
import { Stage } from "./stage.js";

const MOST_KEPT = 24, BODY_M = 1.0, FAR_M = 3.0, MIDDLE = 0.6;
export const NO_WEBGL = "The 3D view needs WebGL, which this browser does not have or has switched off.";
const LOST = "The browser took the memory of this 3D view away. Open the view again to go on.";

// The free body's data for a header of a recording or a live source, null where its model is another.
export async function loadBody(header) {
  if (!header.mesh) { return null; }
  const answer = await fetch("/view/body.bin");
  if (!answer.ok) { throw new Error(`The body model cannot be loaded: error ${answer.status}.`); }
  return unpack(await answer.arrayBuffer());
}

export class View3D {
  // Builds the view into `root`. `header` is a recording's, or the first message of a live source;
  // `body` the free body's data, null where the recording's model is another.
  constructor(root, header, body) {
    this.root = root;
    this.colors = header.colors;
    this.people = new Map();
    this.frame = NO_PEOPLE;
    this.floor = new Floor();
    this.asMesh = body !== null;
    this.followed = 0;
    // Until the viewer moves the view, it is moved so that all people are in it.
    this.framed = true;
    this.placed = false;
    this.canvas = make("canvas", {
      tabindex: 0, role: "application",
      "aria-label": "3D view of the people. Arrow keys turn it, plus and minus zoom.",
    });
    this.tools = make("div", { class: "bar", role: "toolbar", "aria-label": "3D view" });
    this.note = make("p", { class: "note", role: "status" });
    root.classList.add("view3d");
    // For tests and the console.
    root.view3d = this;
    root.replaceChildren(make("div", { class: "stage" }, this.canvas), this.tools, this.note);
    try {
      this.stage = new Stage(this.canvas);
    } catch {
      root.replaceChildren(make("p", { class: "note", role: "alert" }, NO_WEBGL));
      throw new Error(NO_WEBGL);
    }
    this.shape = body && new BodyShape(body);
    this.bones = new BoneShapes();
    this.stage.setCamera(header);
    this.stage.onLeaveCamera = () => this.camera.setAttribute("aria-pressed", false);
    this.stage.onMove = () => { this.framed = false; };
    this.stage.onResize = () => this.framePeople();
    this.addTools();
    this.hint = body ? "" : `The mesh of the body model ${header.model} is licensed and stays on the server; its skeleton is shown.`;
    this.note.textContent = this.hint;
    this.stage.onLost = (lost) => { this.note.textContent = lost ? LOST : this.hint; };
    this.followTheme();
  }

  addTools() {
    const tool = (text, title, action, pressed) => {
      const button = make("button", { type: "button", title }, text);
      if (pressed !== undefined) { button.setAttribute("aria-pressed", pressed); }
      button.addEventListener("click", () => action(button));
      this.tools.append(button);
      return button;
    };
    this.mesh = tool("Mesh", "Show meshes", () => this.show(true), this.asMesh);
    this.skeleton = tool("Skeleton", "Show skeletons", () => this.show(false), !this.asMesh);
    this.mesh.disabled = this.shape === null;
    this.camera = tool("Camera", "Look through the camera", () => this.enterCamera(), false);
    tool("Reset", "Look from the front again", () => this.reset());
    tool("Mirror", "Swap left and right", (button) => {
      const on = this.stage.mirror.scale.x > 0;
      this.stage.setMirror(on);
      button.setAttribute("aria-pressed", on);
    }, false);
    this.follow = make("select", { "aria-label": "Follow a person" });
    this.follow.addEventListener("change", () => {
      this.followed = Number(this.follow.value);
      this.framed &&= this.followed === 0;
      this.at = null;
      this.carry();
    });
    this.tools.append(this.follow);
    this.listPeople();
  }

  show(asMesh) {
    this.asMesh = asMesh;
    this.mesh.setAttribute("aria-pressed", asMesh);
    this.skeleton.setAttribute("aria-pressed", !asMesh);
    this.showFrame(this.frame);
  }

  enterCamera() {
    this.framed = false;
    this.followed = this.follow.value = 0;
    this.camera.setAttribute("aria-pressed", true);
    this.stage.enterCamera(this.middle()?.distanceTo(this.stage.eye()) || 3);
  }

  reset() {
    this.framed = true;
    const middle = this.middle();
    if (!middle) { return; }
    this.placed = true;
    // The camera that saw them is in the view too, unless it is far away.
    const eye = this.stage.eye();
    const centre = eye.clone().lerp(middle, Math.max(0.65, 1 - FAR_M / middle.distanceTo(eye)));
    const farthest = Math.max(...this.pelvises().map((point) => point.distanceTo(centre)));
    this.stage.lookAt(centre, farthest + BODY_M);
  }

  // Show a frame's people: those who were not there appear, those who are gone vanish.
  showFrame(frame) {
    this.frame = frame;
    const gone = new Set(this.people.keys());
    frame.tracks.forEach((track, index) => {
      gone.delete(track);
      const person = this.personOf(track);
      person.object.visible = true;
      person.show(frame.rows.subarray(index * ROW, (index + 1) * ROW), this.asMesh);
    });
    for (const track of gone) { this.people.get(track).object.visible = false; }
    this.forget(gone);
    this.listPeople();
    this.layFloor();
    this.framePeople();
    this.carry();
    this.stage.draw();
  }

  personOf(track) {
    if (!this.people.has(track)) {
      const colors = this.colors, color = colors[(track - 1 + colors.length) % colors.length];
      const person = new Person(this.shape, this.bones, color);
      this.people.set(track, person);
      this.stage.people.add(person.object);
    }
    return this.people.get(track);
  }

  // A street's people come and go for hours.
  forget(gone) {
    for (const track of gone) {
      if (this.people.size <= MOST_KEPT) { return; }
      this.people.get(track).object.removeFromParent();
      this.people.get(track).dispose();
      this.people.delete(track);
    }
  }

  listPeople() {
    const here = [...this.frame.tracks].sort((a, b) => a - b);
    if (this.followed && !here.includes(this.followed)) { here.push(this.followed); }
    if (here.join() === this.listed) { return; }
    this.listed = here.join();
    const option = (value, text) => make("option", { value }, text);
    this.follow.replaceChildren(option(0, "Follow: off"), ...here.map((track) => option(track, `Follow person ${track}`)));
    this.follow.value = this.followed;
  }

  layFloor() {
    if (this.floor.add(this.frame, this.stage)) { this.stage.setFloor(this.stage.floorIsKnown ? 0 : this.floor.height_m, this.floor.width, this.floor.depth); }
  }

  carry() {
    const person = this.followed && this.frame.tracks.includes(this.followed) && this.people.get(this.followed);
    if (!person) { this.at = null; return; }
    const at = this.stage.toWorld(person.joint(0, new Vector3()));
    // The first step brings the person to the middle of the view; later ones go along.
    const step = at.clone().sub(this.at ?? this.stage.controls.target);
    this.at = at;
    this.stage.leaveCamera();
    this.stage.carry(step);
  }

  pelvises() {
    return [...this.frame.tracks].map((track) => this.stage.toWorld(this.people.get(track).joint(0, new Vector3())));
  }

  // The middle of the people, null without any.
  middle() {
    const points = this.pelvises();
    return points.length ? points.reduce((sum, point) => sum.add(point), new Vector3()).divideScalar(points.length) : null;
  }

  framePeople() {
    if (!this.framed) { return; }
    this.stage.camera.updateMatrixWorld();
    const points = this.pelvises().map((point) => point.project(this.stage.camera));
    if (!this.placed || points.some(({ x, y }) => Math.max(Math.abs(x), Math.abs(y)) > MIDDLE)) { this.reset(); }
  }

  followTheme() {
    const recolor = () => this.stage.recolor();
    this.system = matchMedia("(prefers-color-scheme: light)");
    this.system.onchange = recolor;
    this.theme = new MutationObserver(recolor);
    this.theme.observe(document.documentElement, { attributes: true });
  }

  // What the page computed, for tests: the joints of a person's mesh in the camera's axes, metres.
  jointsOf(track) {
    const { body, object } = this.people.get(track);
    object.updateWorldMatrix(true, true);
    const back = this.stage.people.matrixWorld.clone().invert();
    return body.bones.map((bone) => new Vector3().setFromMatrixPosition(bone.matrixWorld).applyMatrix4(back).toArray());
  }

  dispose() {
    this.system.onchange = null;
    this.theme.disconnect();
    this.people.forEach((person) => person.dispose());
    this.bones.dispose();
    this.shape?.geometry.dispose();
    this.stage.dispose();
    this.root.replaceChildren();
    delete this.root.view3d;
  }
}
