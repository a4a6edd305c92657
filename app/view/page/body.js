// People in the scene: the free body's mesh, which the GPU skins, and SMPL's skeleton.

import {
  Bone, BufferAttribute, BufferGeometry, Color, CylinderGeometry, Group, InstancedMesh, Matrix4,
  MeshLambertMaterial, Quaternion, Skeleton, SkinnedMesh, SphereGeometry, SRGBColorSpace, Vector3,
} from "./vendor/three.module.min.js";
import { BETAS_AT, JOINTS, JOINTS_AT } from "./frames.js";

const BETAS = 10;
// SMPL's tree: the parent of each joint.
export const PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21];
const JOINT_RADIUS_M = 0.022, BONE_RADIUS_M = 0.012;

// The free body's data, from app/view/body.py: one geometry for all people. Betas are the weights of
// its morph targets, so the GPU shapes the mesh before it skins it.
export class BodyShape {
  constructor({ template_m, change_m, unit_m, index, skin_joint, skin_weight, joints_m, joints_change_m }) {
    this.joints_m = joints_m;
    this.jointsChange_m = joints_change_m;
    const changes = Float32Array.from(change_m, (value) => value * unit_m);
    const length = template_m.length;
    this.geometry = new BufferGeometry();
    this.geometry.setIndex(new BufferAttribute(index, 1));
    this.geometry.setAttribute("position", new BufferAttribute(template_m, 3));
    this.geometry.setAttribute("skinIndex", new BufferAttribute(skin_joint, 4));
    this.geometry.setAttribute("skinWeight", new BufferAttribute(skin_weight, 4, true));
    this.geometry.morphTargetsRelative = true;
    this.geometry.morphAttributes.position = Array.from({ length: BETAS }, (_, beta) =>
      new BufferAttribute(changes.subarray(beta * length, (beta + 1) * length), 3));
    // Those of the mean shape; shapes change them by a few degrees.
    this.geometry.computeVertexNormals();
  }

  // The joints at rest of a shape (72 numbers, metres).
  restJoints(betas) {
    return this.joints_m.map((mean, index) => {
      let sum = mean;
      for (let beta = 0; beta < BETAS; beta++) { sum += betas[beta] * this.jointsChange_m[index * BETAS + beta]; }
      return sum;
    });
  }
}

// A skinned mesh that takes SMPL's numbers.
class BodyMesh {
  constructor(shape, material) {
    this.shape = shape;
    this.betas = null;
    this.bones = PARENTS.map(() => new Bone());
    PARENTS.forEach((parent, joint) => { if (parent >= 0) { this.bones[parent].add(this.bones[joint]); } });
    this.skeleton = new Skeleton(this.bones, PARENTS.map(() => new Matrix4()));
    this.mesh = new SkinnedMesh(shape.geometry, material);
    this.mesh.add(this.bones[0]);
    this.mesh.bind(this.skeleton, new Matrix4());
    // Its bounds at rest say nothing about where it is.
    this.mesh.frustumCulled = false;
  }

  pose(row) {
    const betas = row.subarray(BETAS_AT, BETAS_AT + BETAS);
    if (!this.betas || betas.some((beta, index) => beta !== this.betas[index])) { this.reshape(betas); }
    for (let joint = 0; joint < JOINTS; joint++) {
      axis.fromArray(row, 3 * joint);
      const angle = axis.length();
      // An angle of 0 has no axis.
      this.bones[joint].quaternion.setFromAxisAngle(angle > 0 ? axis.divideScalar(angle) : axis, angle);
    }
    this.bones[0].position.fromArray(row, JOINTS_AT);
  }

  reshape(betas) {
    this.betas = betas.slice();
    const rest = this.shape.restJoints(betas);
    PARENTS.forEach((parent, joint) => {
      here.fromArray(rest, 3 * joint);
      this.skeleton.boneInverses[joint].makeTranslation(-here.x, -here.y, -here.z);
      if (parent >= 0) { this.bones[joint].position.copy(here).sub(there.fromArray(rest, 3 * parent)); }
    });
    this.mesh.morphTargetInfluences = Array.from(betas);
  }

  dispose() { this.skeleton.dispose(); }
}

const axis = new Vector3(), here = new Vector3(), there = new Vector3(), size = new Vector3(1, 1, 1);
const up = new Vector3(0, 1, 0), turn = new Quaternion(), matrix = new Matrix4();

// The geometries of a view's skeletons. Each view has its own: a geometry holds every renderer that drew it.
export class BoneShapes {
  constructor() {
    this.ball = new SphereGeometry(JOINT_RADIUS_M, 12, 8);
    this.rod = new CylinderGeometry(BONE_RADIUS_M, BONE_RADIUS_M, 1, 8);
  }

  dispose() { this.ball.dispose(); this.rod.dispose(); }
}

// Balls at SMPL's joints, as they were sent, and rods between them.
class Bones {
  constructor({ ball, rod }, material) {
    this.balls = new InstancedMesh(ball, material, JOINTS);
    this.rods = new InstancedMesh(rod, material, JOINTS - 1);
    this.balls.frustumCulled = this.rods.frustumCulled = false;
  }

  pose(row) {
    PARENTS.forEach((parent, joint) => {
      here.fromArray(row, JOINTS_AT + 3 * joint);
      this.balls.setMatrixAt(joint, matrix.makeTranslation(here));
      if (parent < 0) { return; }
      there.fromArray(row, JOINTS_AT + 3 * parent);
      axis.subVectors(there, here);
      const length = Math.max(axis.length(), 1e-6);
      turn.setFromUnitVectors(up, axis.divideScalar(length));
      matrix.compose(here.add(there).multiplyScalar(0.5), turn, size.set(1, length, 1));
      this.rods.setMatrixAt(joint - 1, matrix);
    });
    this.balls.instanceMatrix.needsUpdate = this.rods.instanceMatrix.needsUpdate = true;
  }

  dispose() { this.balls.dispose(); this.rods.dispose(); }
}

// One person, in the camera's axes.
export class Person {
  // `shape` is the free body's, null for skeletons alone; `bones` the geometries of skeletons.
  constructor(shape, bones, color) {
    const material = new MeshLambertMaterial({ color: new Color().setRGB(...color, SRGBColorSpace) });
    this.material = material;
    this.object = new Group();
    this.bones = new Bones(bones, material);
    this.skeleton = new Group().add(this.bones.balls, this.bones.rods);
    this.body = shape ? new BodyMesh(shape, material) : null;
    this.object.add(this.skeleton);
    if (this.body) { this.object.add(this.body.mesh); }
    this.row = null;
  }

  // Only what is shown is posed: `row` is one row of a frame.
  show(row, asMesh) {
    this.row = row;
    const mesh = asMesh && this.body !== null;
    this.skeleton.visible = !mesh;
    if (this.body) { this.body.mesh.visible = mesh; }
    if (mesh) { this.body.pose(row); } else { this.bones.pose(row); }
  }

  joint(index, target) { return target.fromArray(this.row, JOINTS_AT + 3 * index); }

  dispose() {
    this.bones.dispose();
    this.body?.dispose();
    this.material.dispose();
  }
}
