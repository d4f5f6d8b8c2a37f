// The cells and pixels of a picture that are drawn again. No element of the page is touched here.

export class Mask {
  constructor([width, height], [rows, columns]) {
    Object.assign(this, { width, height, rows, columns, marked: new Uint8Array(width * height) });
  }

  // Sets the pixels within half a brush's width of a line, given in pixels of the picture.
  line([x0, y0], [x1, y1], brush, value) {
    const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(0.5, brush / 4)));
    for (let i = 0; i <= steps; i += 1) this.#dot(x0 + ((x1 - x0) * i) / steps, y0 + ((y1 - y0) * i) / steps, brush / 2, value);
  }

  // The pixels whose middle is in the circle, and the one that holds its middle.
  #dot(x, y, radius, value) {
    const set = (column, row) => {
      if (column >= 0 && row >= 0 && column < this.width && row < this.height) this.marked[row * this.width + column] = value;
    };
    for (let row = Math.floor(y - radius); row <= y + radius; row += 1) {
      for (let column = Math.floor(x - radius); column <= x + radius; column += 1) {
        if (Math.hypot(column + 0.5 - x, row + 0.5 - y) < radius) set(column, row);
      }
    }
    set(Math.floor(x), Math.floor(y));
  }

  // The pixels of a cell: [left, top, right, bottom], the last two exclusive.
  cell(row, column) {
    const edge = (i, n, size) => Math.ceil((i * size) / n);
    return [
      edge(column, this.columns, this.width), edge(row, this.rows, this.height),
      edge(column + 1, this.columns, this.width), edge(row + 1, this.rows, this.height),
    ];
  }

  #rowsOf(row, column) {
    const [left, top, right, bottom] = this.cell(row, column);
    const rows = [];
    for (let y = top; y < bottom; y += 1) rows.push(this.marked.subarray(y * this.width + left, y * this.width + right));
    return rows;
  }

  // Whether any pixel of a cell is marked, so that the cell is drawn again.
  isMarked(row, column) {
    return this.#rowsOf(row, column).some((pixels) => pixels.includes(1));
  }

  // Marks a cell, or removes its marks if all of it is marked.
  toggle(row, column) {
    const rows = this.#rowsOf(row, column);
    const value = Number(rows.some((pixels) => pixels.includes(0)));
    for (const pixels of rows) pixels.fill(value);
  }

  get isEmpty() {
    return !this.marked.includes(1);
  }

  // Cells of which at least a pixel is marked.
  get nCells() {
    let n = 0;
    for (let row = 0; row < this.rows; row += 1) {
      for (let column = 0; column < this.columns; column += 1) n += Number(this.isMarked(row, column));
    }
    return n;
  }

  clear() {
    this.marked.fill(0);
  }

  // Makes the marked pixels of a canvas transparent: by `share` of their opacity.
  cutFrom(context, share) {
    const image = context.getImageData(0, 0, this.width, this.height);
    this.marked.forEach((marked, i) => { if (marked) image.data[4 * i + 3] *= 1 - share; });
    context.putImageData(image, 0, 0);
  }

  // Lengths of the runs of unmarked and marked pixels in turn, for storage.
  runs() {
    const lengths = [];
    let start = 0;
    for (let i = 1; i <= this.marked.length; i += 1) {
      if (i < this.marked.length && this.marked[i] === this.marked[i - 1]) continue;
      if (start === 0 && this.marked[0]) lengths.push(0);
      lengths.push(i - start);
      start = i;
    }
    return lengths;
  }

  setRuns(lengths) {
    let at = 0;
    lengths.forEach((length, i) => {
      this.marked.fill(i % 2, at, at + length);
      at += length;
    });
  }
}
