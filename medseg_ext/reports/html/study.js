"use strict";
// Shows the volumes of the page with NiiVue. Everything it needs is in the page.
(async () => {
  const byId = (id) => document.getElementById(id);
  const status = byId("status");
  const say = (text) => {
    status.textContent = text;
    status.hidden = text === "";
  };

  const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

  const inflated = (base64) => {
    const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  };

  // The page's policy lets a script run whose SHA-256 it names, wherever its text comes from.
  const loadViewer = async () => {
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(await inflated(byId("niivue").textContent));
    document.head.append(script);
    return globalThis.niivue;
  };

  const colourTable = (tissues) => {
    const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["background"] };
    for (const { value, name, colour } of tissues) {
      table.R.push(parseInt(colour.slice(1, 3), 16));
      table.G.push(parseInt(colour.slice(3, 5), 16));
      table.B.push(parseInt(colour.slice(5, 7), 16));
      table.A.push(255);
      table.I.push(value);
      table.labels.push(name);
    }
    return table;
  };

  const show = async (study) => {
    const { Niivue, NVImage, SLICE_TYPE, SHOW_RENDER } = await loadViewer();
    byId("viewer").hidden = false;
    const view = new Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.75, 0.85, 1, 0.8],
      crosshairWidth: 0.5,
      crosshairGap: 4,
      clipPlaneColor: [0, 0, 0, 0],
      fontColor: [0.85, 0.85, 0.85, 1],
      show3Dcrosshair: true,
      isRadiologicalConvention: true,
      multiplanarShowRender: SHOW_RENDER.ALWAYS,
      dragAndDropEnabled: false,
      isNearestInterpolation: false,
      scrollRequiresFocus: true,
      logLevel: "error",
    });
    await view.attachToCanvas(byId("canvas"));

    const backgrounds = [];
    for (const { label, data, low, high } of study.backgrounds) {
      backgrounds.push(
        await NVImage.loadFromBase64({ base64: data, name: `${label}.nii.gz`, cal_min: low, cal_max: high }),
      );
    }
    const overlays = {};
    for (const [name, data] of Object.entries(study.overlays)) {
      overlays[name] = await NVImage.loadFromBase64({ base64: data, name: `${name}.nii.gz` });
      overlays[name].setColormapLabel(colourTable(study.tissues));
    }

    const home = () => {
      view.scene.crosshairPos = view.mm2frac(study.place);
      view.scene.pan2Dxyzmm = [0, 0, 0, 1];
      // from the side on which it lies
      view.setRenderAzimuthElevation(study.place[0] < 0 ? 110 : 250, 10);
      view.createOnLocationChange();
      view.drawScene();
    };
    const refresh = () => {
      const overlay = overlays[new FormData(byId("controls")).get("overlay")];
      view.back = backgrounds[Number(byId("background").value)];
      view.overlays = overlay ? [overlay] : [];
      for (const one of view.overlays) {
        one.opacity = Number(byId("opacity").value);
      }
      view.volumes = [view.back, ...view.overlays];
      view.updateGLVolume();
    };
    view.onLocationChange = ({ mm, values }) => {
      const place = ["RL", "AP", "SI"].map(
        ([plus, minus], axis) => `${mm[axis] < 0 ? minus : plus} ${Math.abs(mm[axis]).toFixed(0)}`,
      );
      const tissue = study.tissues.find(({ value }) => values[1] && Math.round(values[1].value) === value);
      byId("location").textContent = `${place.join(", ")} mm${tissue ? `: ${tissue.name}` : ""}`;
    };
    for (const id of ["background", "opacity"]) {
      byId(id).addEventListener("input", refresh);
    }
    for (const input of document.getElementsByName("overlay")) {
      input.addEventListener("change", refresh);
    }
    byId("layout").addEventListener("change", () => view.setSliceType(Number(byId("layout").value)));
    byId("cut").addEventListener("input", () => {
      const part = Number(byId("cut").value);
      // beyond 2 NiiVue cuts nothing away
      view.setClipPlane([part === 0 ? 2 : 0.5 - part, 270, 0]);
    });
    byId("home").addEventListener("click", home);
    refresh();
    view.setSliceType(SLICE_TYPE.MULTIPLANAR);
    home();
    return view;
  };

  try {
    if (!document.createElement("canvas").getContext("webgl2")) {
      throw new Error("the browser has no WebGL 2");
    }
    const study = JSON.parse(byId("study").textContent);
    if (study.backgrounds.length === 0) {
      throw new Error("the page had no room for a sequence");
    }
    say("Unpacking the volumes …");
    globalThis.view = await show(study);
    say("");
    document.documentElement.dataset.view = "ready";
  } catch (error) {
    byId("viewer").hidden = true;
    say(`The 3-D view cannot be shown: ${error.message}. All the rest of the page is complete without.`);
    document.documentElement.dataset.view = "failed";
  }
})();
