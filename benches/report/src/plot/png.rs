//! PNG from SVG, with a font that a Debian package brings.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use anyhow::{Context as _, Result, bail};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb::Database};

/// Where Debian's fonts-dejavu-core puts its fonts.
const FONTS: &str = "/usr/share/fonts/truetype/dejavu";

/// Fonts are read once.
static DATABASE: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let mut database = Database::new();
    for font in ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf"] {
        // What is missing shows in the number of faces.
        let _ = std::fs::read(Path::new(FONTS).join(font)).map(|font| database.load_font_data(font));
    }
    database.set_sans_serif_family("DejaVu Sans");
    Arc::new(database)
});

/// Draws an SVG into a PNG file, a pixel for each of its units.
pub(super) fn write(svg: &str, path: &Path) -> Result<()> {
    if DATABASE.len() < 2 {
        bail!(
            "PNG files need the font DejaVu Sans in {FONTS} (Debian package fonts-dejavu-core); the SVG files need nothing"
        );
    }
    let options = Options { fontdb: Arc::clone(&DATABASE), ..Options::default() };
    let tree = Tree::from_str(svg, &options).context("the SVG")?;
    let size = tree.size().to_int_size();
    let mut pixels = Pixmap::new(size.width(), size.height()).context("the picture is too big")?;
    resvg::render(&tree, Transform::identity(), &mut pixels.as_mut());
    pixels.save_png(path).with_context(|| format!("cannot write {}", path.display()))
}
