//! The XMP packet that says of a picture that a model made it: IPTC's digital source type, and how it was drawn.
//! Knows the packet's text; where it lies in a file is the format's.

use std::borrow::Cow;

/// IPTC's word for pictures that a trained model made: <https://cv.iptc.org/newscodes/digitalsourcetype>.
const SOURCE_TYPE: &str = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";
/// The identifier that marks a packet, by Adobe's XMP specification, part 1, 7.3.2.
const PACKET_ID: &str = "W5M0MpCehiHzreSzNTczkc9d";

/// `description` is left out when the packet would be longer than `limit` bytes.
pub(crate) fn packet(description: &str, limit: usize) -> String {
    let whole = written(Some(description));
    if whole.len() <= limit { whole } else { written(None) }
}

fn written(description: Option<&str>) -> String {
    let description = description.map(|text| {
        format!(
            "<dc:description><rdf:Alt><rdf:li xml:lang=\"x-default\">{}</rdf:li></rdf:Alt></dc:description>",
            escaped(text)
        )
    });
    format!(
        "<?xpacket begin=\"\u{feff}\" id=\"{PACKET_ID}\"?>\
         <x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\
         <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\
         <rdf:Description rdf:about=\"\" xmlns:dc=\"http://purl.org/dc/elements/1.1/\" \
         xmlns:xmp=\"http://ns.adobe.com/xap/1.0/\" \
         xmlns:Iptc4xmpExt=\"http://iptc.org/std/Iptc4xmpExt/2008-02-29/\" \
         Iptc4xmpExt:DigitalSourceType=\"{SOURCE_TYPE}\" xmp:CreatorTool=\"Easel {}\">{}\
         </rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end=\"r\"?>",
        env!("CARGO_PKG_VERSION"),
        description.unwrap_or_default()
    )
}

/// XML has no way at all to write most control characters, and two more.
fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => Cow::from("&amp;"),
            '<' => "&lt;".into(),
            '>' => "&gt;".into(),
            '\n' => "\n".into(),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => " ".into(),
            c => c.to_string().into(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_says_that_a_model_made_the_picture_and_how() {
        let packet = packet("a cät\nSteps: 3", usize::MAX);
        assert!(packet.starts_with("<?xpacket begin=\"\u{feff}\" id=\"") && packet.ends_with("<?xpacket end=\"r\"?>"));
        assert!(
            packet.contains(
                "DigitalSourceType=\"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia\""
            )
        );
        assert!(packet.contains(">a cät\nSteps: 3</rdf:li>"), "{packet}");
    }

    #[test]
    fn a_prompt_can_not_end_its_element() {
        let packet = packet("</rdf:li>&\u{1}\u{ffff}<x", usize::MAX);
        assert!(packet.contains(">&lt;/rdf:li&gt;&amp;  &lt;x</rdf:li>"), "{packet}");
    }

    #[test]
    fn a_description_that_does_not_fit_is_left_out_whole() {
        let (short, long) = (packet("a cat", 2000), packet(&"cat ".repeat(1000), 2000));
        assert!(short.contains("dc:description>"));
        assert!(long.len() <= 2000 && long.contains("trainedAlgorithmicMedia") && !long.contains("dc:description>"));
    }
}
